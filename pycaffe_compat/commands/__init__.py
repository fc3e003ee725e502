"""The command lines: one module each, with the ``main`` that ``tools/*.py`` and the installed commands share."""
