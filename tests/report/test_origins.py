"""Hosts and languages: counts of the plan and of what was kept, the rest in one entry."""

from corgi.report import origins
from corgi.report.committed import Committed
from corgi.tables.schema import Reason
from tests.support import tables

ENGLISH = "a large brown dog runs across the green field near the old house"
GERMAN = "ein großer brauner Hund läuft über die grüne Wiese neben dem alten Haus"


def test_law_urls_and_images_of_all_hosts_add_up(tmp_path):
    pictures = [
        tables.Picture(f"http://www.host{number % 15:02d}.com/{number}.png", ((ENGLISH, "full"),))
        for number in range(60)
    ]
    pictures += [tables.Picture("http://host00.com/lost", reason=Reason.TIMEOUT)]
    found = origins.origins(Committed(tables.tiny_run(tmp_path, pictures)))
    assert found is not None
    assert (sum(host.urls for host in found.hosts), sum(host.kept for host in found.hosts)) == (61, 60)
    assert found.num_domains == 15
    assert len(found.hosts) == origins.NUM_SHOWN + 1
    first = found.hosts[0]
    assert (first.domain, first.urls, first.kept, first.kept_percent) == ("host00.com", 5, 4, "80 %")


def test_languages_of_full_captions_are_counted(tmp_path):
    texts = [ENGLISH, ENGLISH, GERMAN, "red heart"]
    pictures = [
        tables.Picture(f"http://a.test/{number}", ((text, "full"), ("ein Tier", "coarse")))
        for number, text in enumerate(texts)
    ]
    found = origins.origins(Committed(tables.tiny_run(tmp_path, pictures)))
    assert found is not None
    told = [(bar.label, bar.value) for bar in found.languages]
    assert told == [("en", "2"), ("de", "1"), ("too short or not clear", "1")]
    assert found.num_guessed == 4


def test_before_the_plan_nothing_is_known(tmp_path):
    assert origins.origins(Committed(tables.new_run(tmp_path))) is None
