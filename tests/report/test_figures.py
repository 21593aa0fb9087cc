from corgi.report import figures


def shape(table: figures.Table) -> tuple[str, tuple[str, ...], int]:
    return table.heading, table.columns, len(table.rows)


def test_plain_values_are_pairs():
    (table,) = figures.tables(
        {"mean_norm": 0.5, "rows": 12000, "kind": "linear", "ci": [0.25, 0.75], "none": None}
    )
    assert [(keys[0], cells[0]) for keys, cells in table.rows] == [
        ("mean norm", "0.500"),
        ("rows", "12,000"),
        ("kind", "linear"),
        ("ci", "0.250, 0.750"),
        ("none", "\N{EN DASH}"),
    ]


def test_a_long_list_is_told_by_its_range():
    assert figures.cell(list(range(100))) == "100 values, 0 to 99"


def test_groups_with_common_columns_share_a_table_and_a_missing_cell_is_empty():
    (table,) = figures.tables({"a": {"x": 1, "y": 2}, "b": {"x": 3}})
    assert table.columns == ("x", "y")
    assert table.rows == ((("a",), ("1", "2")), (("b",), ("3", "")))


def test_groups_without_common_columns_keep_their_own_headings():
    found = figures.tables({"retrieval": {"R@1": 0.5}, "words": {"count": 3}})
    assert [table.heading for table in found] == ["Retrieval", "Words"]


def test_steps_are_in_order_of_number_and_repeated_methods_are_said_once():
    steps = {"64": {"cosine": 1}, "8": {"cosine": 2}}
    (table,) = figures.tables({"prior": {"shifted": steps, "dalle2": steps}}, "steps")
    assert table.heading == "Prior"
    assert table.keys == ("", "steps")
    assert [keys for keys, _ in table.rows] == [("shifted", "8"), (None, "64"), ("dalle2", "8"), (None, "64")]


def test_no_number_is_lost_in_deep_nesting():
    measured = {"mean": 1, "low": 2, "high": 3}
    source = {"similarity": measured, "control": measured, "retrieval": {"R@1": 4}}
    found = figures.tables(
        {"decoder": {"TRAIN": {"true": source, "prior": source}, "HELD-OUT": {"true": source}}}
    )
    cells = [cell for table in found for _, row in table.rows for cell in row if cell]
    assert sorted(cells) == sorted(["1", "2", "3"] * 6 + ["4"] * 3)
    assert [table.heading for table in found if table.heading][:2] == ["Decoder", "TRAIN"]


def test_notes_are_found_at_any_depth_and_are_no_numbers():
    values = {"notes": ["one"], "prior": {"note": "two", "x": 1, "deeper": {"notes": ["one", "three"]}}}
    assert figures.notes(values) == ["one", "two", "three"]
    assert shape(figures.tables(values)[0]) == ("Prior", ("",), 1)


def test_digests_are_left_out_and_units_stand_apart():
    values = {
        "shards": ["ab" * 16, "cd" * 16],
        "sha256": "ef" * 32,
        "model": "own",
        "wait_s": 3,
        "image_px": 64,
        "s": 1,
    }
    (table,) = figures.tables(values)
    assert [keys[0] for keys, _ in table.rows] == ["model", "wait, s", "image, px", "s"]
