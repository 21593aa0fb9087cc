"""docs/settings.md says what the settings' declarations say."""

from corgi.settings.models import PriorSettings
from corgi.settings.recipe import Recipe
from tests.support.settings_page import PAGE, page


def test_the_settings_page_is_current() -> None:
    current = PAGE.read_text(encoding="utf-8") == page()
    assert current, "docs/settings.md is old: run python -m tests.support.settings_page"


def test_every_setting_is_on_the_page_with_its_default_and_its_words() -> None:
    text = page()
    for name in PriorSettings.model_fields.keys() - {"training"}:
        assert f"`prior.{name}`" in text, name
    for name in Recipe.model_fields:
        assert f"`{name}`" in text or f"\n## {name}" in text, name
    assert "| `prior.width` | integer, >= 32 | `2048` | Transformer width. |" in text
