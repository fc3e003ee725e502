"""TextBoxes++, and its layers for connectionist temporal classification."""

from ..fork import Fork

FORK = Fork(
    name="textboxes_plus",
    title="TextBoxes++",
    source="MhLiao/TextBoxes_plusplus",
    types="CTCGreedyDecoder",
)
