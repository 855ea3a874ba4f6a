"""Several subjects side by side."""

import numpy as np
import pytest

from unibrain.errors import InputError
from unibrain.regression.subjects import for_each_subject, threads_per_job


def test_cores_are_shared_out():
    assert [threads_per_job(jobs, 8) for jobs in (1, 2, 3, 8, 20)] == [8, 4, 2, 1, 1]
    with pytest.raises(InputError, match="jobs is 0"):
        threads_per_job(0)


def blas_threads(subject):
    from threadpoolctl import threadpool_info

    np.ones((2, 2)) @ np.ones((2, 2))
    return subject, max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")


def test_subjects_side_by_side_use_no_more_threads_than_cores():
    assert for_each_subject(blas_threads, [5], 2)[0][0] == 5
    found = for_each_subject(blas_threads, [1, 2, 7], 2)
    assert found == [(subject, threads_per_job(2)) for subject in (1, 2, 7)]
