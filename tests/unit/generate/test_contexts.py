"""Contexts that are kept give the same predictions as those that are read again, for every family."""

from typing import Any

import pytest
import torch
from variants import GENERATION, SMALL, concepts, small_model

from largeconcept.errors import ConfigError
from largeconcept.generate.contexts import ContextStore, tensor_bytes
from largeconcept.generate.loop import predict_teacher_forced
from largeconcept.generate.options import GenerationOptions
from largeconcept.models.two_tower import CrossContext

FAMILIES = [name for name in SMALL if name != "token_lm"]


def options(name: str, **words: Any) -> GenerationOptions:
    return GenerationOptions.from_dict({"num_inference_steps": 3, **GENERATION.get(name, {}), **words})


@pytest.mark.parametrize("name", FAMILIES)
def test_kept_contexts_change_nothing(name):
    model, x, store = small_model(name), concepts(2, 5), None
    store = ContextStore(model)
    for words in ({}, {"guidance_scale": 1.0, "temperature": 0.5}, {"initial_noise_scale": 1.0, "seed": 3}):
        chosen = options(name, **words)
        kept = predict_teacher_forced(model, x, [5, 3], chosen, sample_ids=[4, 5], contexts=store)
        assert torch.equal(kept, predict_teacher_forced(model, x, [5, 3], chosen, sample_ids=[4, 5]))
    assert store.num_read == 1 and store.num_bytes > 0


def test_a_context_is_only_used_for_what_it_was_read_from():
    model = small_model("two_tower")
    store, settings = ContextStore(model), options("two_tower")
    first, second = concepts(1, 4, seed=1), concepts(1, 4, seed=2)
    predict_teacher_forced(model, first, options=settings, contexts=store)
    found = predict_teacher_forced(model, second, options=settings, contexts=store)
    assert torch.equal(found, predict_teacher_forced(model, second, options=settings))
    assert store.num_read == 2
    with pytest.raises(ConfigError, match="another model"):
        predict_teacher_forced(small_model("two_tower", seed=1), first, options=settings, contexts=store)


def test_without_room_documents_are_read_each_time():
    model = small_model("two_tower")
    store, settings = ContextStore(model, max_bytes=100), options("two_tower")
    for _ in range(3):
        predict_teacher_forced(model, concepts(1, 4), options=settings, contexts=store)
    assert store.num_read == 3 and store.num_bytes == 0


def test_sizes_of_contexts():
    keys = torch.zeros(2, 3)
    assert tensor_bytes(CrossContext([(keys, keys)], torch.ones(4, dtype=torch.bool))) == 2 * 24 + 4
