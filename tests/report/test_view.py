"""What the page shows, worked out of the figures."""

from __future__ import annotations

from typing import Any

import yaml

from pluria.recipe.reading import make_recipe
from pluria.report import view
from pluria.report.records import COLUMNS
from report.runs import alone, crowded, hostile


def test_headline_is_split_at_its_first_sentence(figures: dict[str, Any]) -> None:
    gain, rest = view.headline(figures)
    assert gain.startswith(figures["main"])
    assert gain.endswith("member by member).")
    assert f"{gain} {rest}" == figures["headline"]
    assert view.headline({"headline": "One sentence 0.5"}) == ("One sentence 0.5", "")


def test_tiles_tell_gain_and_cost(figures: dict[str, Any]) -> None:
    main = next(arm for arm in figures["arms"] if arm["name"] == figures["main"])
    found = {tile.label: tile for tile in view.tiles(figures)}
    assert found["Forwards for each row"].value == "1 → 4"
    assert found["NLL after temperature"].value.endswith(f"{main['scaled']['nll']:.4f}")
    assert found["Bits for each weight"].value.startswith("32")


def test_tiles_of_several_networks_tell_operations_and_bytes(several: dict[str, Any]) -> None:
    costs = {arm["name"]: arm["cost"] for arm in several["arms"]}
    main, reference = costs[several["main"]], costs[several["reference"]]
    found = {tile.label: tile for tile in view.tiles(several)}
    assert found["kFLOPs for each row"].value == f"{reference['flops'] / 1e3:.1f} → {main['flops'] / 1e3:.1f}"
    assert found["kFLOPs for each row"].note.startswith("1 → 2 forwards; ")
    assert found["Memory, kB"].value.endswith(f" → {main['bits_planes'] / 8e3:.2f}")


def test_heads_span_every_column() -> None:
    groups, columns = view.heads()
    assert sum(size for _, size in groups) == len(columns) == len(COLUMNS)


def test_rows_are_the_arms_in_two_bodies(figures: dict[str, Any]) -> None:
    bodies = dict(view.bodies(figures))
    assert len(bodies["Controls"]) == sum(arm["control"] for arm in figures["arms"])
    assert [row.main for row in bodies["Drawn arms"]].count(True) == 1
    assert bodies["Controls"][0].whisker is None
    assert all(len(row.cells) == len(COLUMNS) for rows in bodies.values() for row in rows)


def test_whiskers_are_ordered_and_inside(figures: dict[str, Any]) -> None:
    for _, rows in view.bodies(figures):
        for one in (row.whisker for row in rows if row.whisker):
            assert 0 <= one.low <= one.middle <= one.high <= 100
            assert 0 < one.zero < 100


def test_a_control_off_the_scale_is_cut_and_gains_never_are(figures: dict[str, Any]) -> None:
    far = crowded(figures, 0)
    nearest = next(arm for arm in far["arms"] if arm["method"] == "nearest")
    views = next(arm for arm in far["arms"] if len(arm["views"]) > 1)
    nearest["difference"]["nll_scaled"] |= {"estimate": 9.0, "low": 8.0, "high": 10.0}
    views["difference"]["nll_scaled"] |= {"estimate": -9.0, "low": -10.0, "high": -8.0}
    rows = {row.name.replace("\u00a0", " "): row.whisker for row in dict(view.bodies(far))["Controls"]}
    lost, won = rows[nearest["name"]], rows[views["name"]]
    assert lost is not None
    assert won is not None
    assert lost.cut
    assert lost.high == 100
    assert won.mood == "better"
    assert won.low > 0
    assert not won.cut


def test_singles_within_the_bits(figures: dict[str, Any]) -> None:
    found = view.within_bits(figures)
    assert [line["name"] for line in found] == list(figures["equal_bits"])
    assert found[0]["bits_members"]["name"] == figures["equal_bits"][found[0]["name"]]["bits_members"]
    figures = {**figures, "equal_bits": {figures["main"]: {}}}
    assert view.within_bits(figures)[0]["bits_planes"] is None


def test_examples_show_votes_and_only_pictures_of_their_own(figures: dict[str, Any]) -> None:
    for one, given in zip(view.examples(figures), figures["disagreed"], strict=True):
        assert sum(vote["share"] for vote in one["shares"]) == 100
        assert [vote["kind"] == "own" for vote in one["shares"]] == [n == given["label"] for n, _ in given["votes"]]
        assert one["right"] == (given["answer"] == given["label"])
        assert one["picture"] == given["picture"] is not None
    assert view.examples(hostile(figures))[0]["picture"] is None
    assert view.examples(alone(figures)) == []


def test_the_recipe_runs_again(figures: dict[str, Any]) -> None:
    again = make_recipe(yaml.safe_load(view.recipe_text(figures)))
    assert again.model_dump(mode="json") == figures["recipe"]


def test_machine_lists_packages(figures: dict[str, Any]) -> None:
    found = dict(view.machine(figures))
    assert found["torch"] == figures["environment"]["packages"]["torch"]
    assert found["cores"] == str(figures["environment"]["cores"])
    assert view.machine({}) == []


def test_memory_speaks_of_bit_planes_only_where_they_save(figures: dict[str, Any], several: dict[str, Any]) -> None:
    for run in (figures, several):
        before, after = (next(a["cost"] for a in run["arms"] if a["name"] == run[n]) for n in ("reference", "main"))
        alone = dict(after, bits_planes=after["bits_members"])
        assert after["bits_planes"] < after["bits_members"]
        shared, own = (view._memory(before, cost, run is several).note for cost in (after, alone))
        assert shared.startswith("as bit planes; ")
        assert own.startswith("member by member, ")
