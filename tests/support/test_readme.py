"""README's prompts are found, and the demo has pictures of what they name."""

from corgi.demo.packaged_styles import packaged
from tests.support.readme import named, prompts


def test_prompts_of_commands_and_of_python_are_found_once_each():
    text = 'x\npython pipelines/generate.py runs/a "red heart" --n 4\ncorgi generate runs/a fox\n```\nrun.generate("an owl", n=8)\nrun.generate("fox")\n'
    assert prompts(text) == ["red heart", "fox", "an owl"]
    assert [named(prompt) for prompt in prompts(text)] == ["red heart", "fox", "owl"]


def test_every_prompt_of_the_readme_names_a_concept_of_the_demo():
    concepts = {picture.concept for picture in packaged().pictures}
    assert len(prompts()) >= 2
    assert {named(prompt) for prompt in prompts()} <= concepts
