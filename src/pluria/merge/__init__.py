"""merge: many models into one, tensor by tensor."""

from pluria.merge.leafwise import leafwise
from pluria.merge.linear import linear
from pluria.merge.magnitude import Largest, largest
from pluria.merge.rule import BLOCK, Pass, Piece, Rule, Rules

__all__ = ["BLOCK", "Largest", "Pass", "Piece", "Rule", "Rules", "largest", "leafwise", "linear"]
