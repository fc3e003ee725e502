"""The command lines: a module for each, with the ``main`` that ``tools/*.py`` and the installed commands share."""
