"""The tables of the README, from the stored results of three searches.

python experiments/search/tables.py experiments/search
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

TITLES = {
    "winner": "winner",
    "single": "one network, temperature",
    "views": "one network behind views",
    "int5": "plain INT-5",
}


def row(seed: str, role: str, one: dict[str, Any]) -> str:
    """One line of the table of controls."""
    gap = one["difference"]
    band = "" if role == "winner" else f"{gap['estimate']:+.4f} ({gap['low']:+.4f} to {gap['high']:+.4f})"
    told = one["scores"]
    mbit = f"{one['bits'] / 1e6:.2f}"
    cells = [seed, TITLES[role], one["name"], f"{told['nll']:.4f}", band, f"{told['error']:.2%}", f"{told['ece']:.1%}"]
    return f"| {' | '.join([*cells, str(one['forwards']), mbit])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    files = sorted(parser.parse_args().folder.glob("seed*.json"))
    runs = {file.stem.removeprefix("seed"): json.loads(file.read_text(encoding="utf-8")) for file in files}
    print("| seed | what | name | NLL | winner minus this | error | ECE | forwards | Mbit |")
    print("|---|---|---|---|---|---|---|---|---|")
    for seed, run in runs.items():
        for role in TITLES:
            if role in run["figures"]:
                print(row(seed, role, run["figures"][role]))
    print("\n| seed | kinds looked at, on rows | left out | forwards spent | NLL of the winner on calibration rows |")
    print("|---|---|---|---|---|")
    for seed, run in runs.items():
        looks = ", ".join(f"{look['kinds']} on {look['rows']}" for look in run["looks"])
        left, spent = sum(look["left_out"] for look in run["looks"]), run["ledger"]
        paid = f"{spent['forwards']:.1f} of {spent['limit']:g}"
        print(f"| {seed} | {looks} | {left} | {paid} | {run['winner']['nll']:.4f} |")
    for axis in ("forwards", "bits"):
        print(f"\nFront against {axis}:\n")
        for seed, run in runs.items():
            line = run["fronts"][axis]
            knee = "none" if line["knee"] is None else line["knee"]["name"]
            points = "; ".join(f"{one['name']} {one['nll']:.4f}" for one in line["points"])
            print(f"- seed {seed}: {points}. Knee: {knee}.")


if __name__ == "__main__":
    main()
