from __future__ import annotations

import math

import numpy as np
from scipy import sparse

from fm_spark.core.cooccurrence import liked_together
from fm_spark.core.neighbours import common_names, name_sets


def test_neighbours_by_likes_equal_counting_users() -> None:
    likes = np.random.default_rng(0).random((25, 12)) < 0.2
    found = liked_together(sparse.csr_matrix(likes.astype(float)), np.arange(12), 4)
    for i in range(12):
        cosine = {
            j: np.sum(likes[:, i] & likes[:, j]) / math.sqrt(likes[:, i].sum() * likes[:, j].sum())
            for j in range(12)
            if j != i and (likes[:, i] & likes[:, j]).any()
        }
        best = sorted(cosine, key=lambda j: (-cosine[j], j))[:4]
        assert found[i].tolist() == best + [-1] * (4 - len(best))


def test_names_in_common() -> None:
    genres = [["Drama", "War"], ["War", "Comedy"], ["Comedy"], [], ["Drama", "Drama"]]
    sets = name_sets(genres)
    for i, one in enumerate(genres):
        for j, other in enumerate(genres):
            expected = int(bool(set(one) & set(other))) if one and other else -1
            assert common_names(sets, np.array([i], np.int32), np.array([j], np.int32))[0] == expected
