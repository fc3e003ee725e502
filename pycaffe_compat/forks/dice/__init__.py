"""The loss by the coefficient of Dice."""

from ..fork import Fork

FORK = Fork(
    name="dice",
    title="the Dice coefficient loss",
    source="HolmesShuan/A-Variation-of-Dice-coefficient-Loss-Caffe-Layer",
    types="DiceCoefLoss",
)
