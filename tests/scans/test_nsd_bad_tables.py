"""Tables that are wrong, or at odds with one another, are said in one sentence that names the file."""

from typing import Any

import numpy as np
import pandas
import pytest
from damage import message, rewrite_design, rewrite_table
from scipy.io import loadmat, savemat

from unibrain.scans.nsd_layout import NsdLayout


@pytest.mark.parametrize("column", ["73KID", "10KID"])
def test_ids_counted_from_zero(own_tree: NsdLayout, column: str) -> None:
    def shift(table: Any) -> Any:
        table[column] -= 1
        return table

    rewrite_table(own_tree.responses, shift, "\t")
    text = message(own_tree)
    assert column in text
    assert "counted from 0" in text


def test_a_design_counted_from_zero(own_tree: NsdLayout) -> None:
    rewrite_design(own_tree, masterordering=lambda order: order - 1)
    assert "masterordering from 0" in message(own_tree)


def test_responses_of_another_subject(own_tree: NsdLayout) -> None:
    own_tree.responses.write_bytes(NsdLayout(own_tree.root, 2).responses.read_bytes())
    text = message(own_tree)
    assert "responses.tsv" in text
    assert "73KID" in text


def test_responses_out_of_order(own_tree: NsdLayout) -> None:
    rewrite_table(own_tree.responses, lambda table: table.iloc[::-1], "\t")
    assert "chronological" in message(own_tree)


def test_responses_without_a_column(own_tree: NsdLayout) -> None:
    rewrite_table(own_tree.responses, lambda table: table.drop(columns="73KID"), "\t")
    assert "73KID" in message(own_tree)


def test_more_trials_than_the_design(own_tree: NsdLayout) -> None:
    rewrite_table(own_tree.responses, lambda table: pandas.concat([table, table.tail(1)]), "\t")
    assert "88 trials, expected at most 87" in message(own_tree)


def test_images_counted_from_one(own_tree: NsdLayout) -> None:
    def shift(table: Any) -> Any:
        table["nsdId"] += 1
        return table

    rewrite_table(own_tree.stim_info, shift, ",")
    assert "0-based" in message(own_tree)


def test_trials_in_the_image_table_counted_from_zero(own_tree: NsdLayout) -> None:
    def shift(table: Any) -> Any:
        columns = [f"subject1_rep{rep}" for rep in range(3)]
        table[columns] = (table[columns] - 1).clip(lower=0)
        return table

    rewrite_table(own_tree.stim_info, shift, ",")
    assert "1-based" in message(own_tree)


def test_image_table_with_other_shared_images(own_tree: NsdLayout) -> None:
    def shift(table: Any) -> Any:
        table["shared1000"] = np.roll(table["shared1000"], 1)
        return table

    rewrite_table(own_tree.stim_info, shift, ",")
    assert "shared1000" in message(own_tree)


def test_image_table_without_a_column(own_tree: NsdLayout) -> None:
    rewrite_table(own_tree.stim_info, lambda table: table.drop(columns="subject1_rep2"), ",")
    assert "without subject1_rep2" in message(own_tree)


def test_a_design_without_a_field(own_tree: NsdLayout) -> None:
    savemat(own_tree.expdesign, {"masterordering": np.arange(1, 4)})
    assert "no field subjectim" in message(own_tree)


def test_a_test_image_that_is_also_in_training(own_tree: NsdLayout) -> None:
    def repeat(images: np.ndarray) -> np.ndarray:
        images[0, -1] = images[0, 2]
        return images

    design = loadmat(own_tree.expdesign)
    twice, once = int(design["subjectim"][0, 2]), int(design["subjectim"][0, -1])
    rewrite_design(own_tree, subjectim=repeat)

    def follow(table: Any) -> Any:
        table["73KID"] = table["73KID"].replace(once, twice)
        return table

    rewrite_table(own_tree.responses, follow, "\t")
    text = message(own_tree)
    assert f"73k id {twice} both" in text
    assert "must not be trained on" in text


def test_fewer_than_two_training_images(own_tree: NsdLayout) -> None:
    """Two test trials for every training one, cut after the first training image."""
    design = {name: values for name, values in loadmat(own_tree.expdesign).items() if not name.startswith("__")}
    shared = design["sharedix"].size
    order = np.array([1, 2, 3, shared + 1, 4, 5])
    ids = design["subjectim"][0, order - 1].astype(int)
    design["masterordering"] = order[None]
    savemat(own_tree.expdesign, design)
    session = np.ones(6, dtype=int)
    pandas.DataFrame({"SESSION": session, "73KID": ids, "10KID": order}).to_csv(
        own_tree.responses, sep="\t", index=False
    )

    def list_trials(table: Any) -> Any:
        columns = [f"subject1_rep{rep}" for rep in range(3)]
        table[columns] = 0
        table.loc[ids - 1, columns[0]] = np.arange(1, 7)
        return table

    rewrite_table(own_tree.stim_info, list_trials, ",")
    assert "found 1 training images" in message(own_tree)
