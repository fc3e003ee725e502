"""The table of layers in docs/export.md is the code's."""

from pathlib import Path

from pycaffe_compat.export.table import replaced

PAGE = Path(__file__).parents[2] / "docs" / "export.md"


def test_the_page_has_the_table_of_the_registries():
    page = PAGE.read_text("utf-8")
    assert page == replaced(page), "run: python -m pycaffe_compat.export.table docs/export.md"
    assert "| `Pooling` | pooling | yes | yes | yes |" in page and "`SoftmaxWithLoss`" not in page
