"""The numbers and tables of `make bench-perception`."""

import pytest

from tests.benchmarks.perception.tables import Estimate, auc, bootstrap, markdown, mean, mean_rows


def test_a_mean_and_its_standard_error_by_hand():
    # deviations -1, 0, 1: variance 2 / (3 - 1) = 1, error 1 / sqrt 3
    found = mean([1.0, 2.0, 3.0])
    assert found.value == 2.0
    assert found.error == pytest.approx(3**-0.5)
    assert mean([5.0]) == Estimate(5.0, 0.0)


def test_the_area_under_the_curve_by_hand():
    # of the six pairs, 3 above 2 and 1, 2 above 1 and level with 2; 1.5 above 1 only: 2 + 1.5 + 1
    assert auc([3.0, 2.0, 1.5], [2.0, 1.0]) == pytest.approx(4.5 / 6)


def test_the_error_of_a_mean_drawn_again_is_its_standard_error():
    values = [float(i % 7) for i in range(200)]
    found = bootstrap(lambda drawn: drawn.mean(), values)
    assert found.value == mean(values).value
    assert found.error == pytest.approx(mean(values).error, rel=0.1)  # 1000 draws: 1 / sqrt(2000) = 2 %


def test_rows_are_printed_table_by_table_with_all_columns():
    first = mean_rows("IoU", {"plain": {"t = 250": [0.5, 0.5], "t = 500": [0.25, 0.25]}})
    other = mean_rows("AUC", {"asked": {"t = 250": [1.0]}})
    again = mean_rows("IoU", {"refined": {"t = 250": [0.75, 0.75], "t = 750": [0.0, 0.0]}})
    assert markdown([*first, *other, *again]) == "\n".join(
        [
            "| IoU | t = 250 | t = 500 | t = 750 |",
            "|---|---|---|---|",
            "| plain | 0.500 ± 0.000 | 0.250 ± 0.000 |  |",
            "| refined | 0.750 ± 0.000 |  | 0.000 ± 0.000 |",
            "",
            "| AUC | t = 250 |",
            "|---|---|",
            "| asked | 1.000 ± 0.000 |",
        ]
    )
