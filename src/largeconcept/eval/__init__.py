"""Judging models: :mod:`largeconcept.eval.next_concept` measures the prediction of the next concept."""
