"""Metrics beside RecBole's, one a file, which RecBole's `metrics:` list takes as its own in any run.

Each is computed per row from what the collector keeps, for every cut-off 1..k at once, and averaged over rows. A new
one is a class in a file of its own and a name in METRICS.
"""

from recbole_lsti.evaluation.metrics.accuracy import Accuracy
from recbole_lsti.evaluation.metrics.diversity import IntraListDiversity
from recbole_lsti.evaluation.metrics.f1 import F1
from recbole_lsti.evaluation.metrics.novelty import Novelty
from recbole_lsti.evaluation.metrics.repeat import ExploreRecall, RepeatRecall

METRICS = (Accuracy, ExploreRecall, F1, IntraListDiversity, Novelty, RepeatRecall)
