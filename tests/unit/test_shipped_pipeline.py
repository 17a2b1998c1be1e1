"""The model that ships: small enough, whole, opened without a name, and doing what its card says it does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import largeconcept
from largeconcept import ConceptPipeline, load_codec
from largeconcept.codec.metrics import bleu
from largeconcept.generate.tour import ARTICLE, SUMMARY
from largeconcept.hub import shipped_pipeline

ASSETS = Path(largeconcept.__file__).parent / "assets"
TEXTS = {
    "eng_Latn": ["Select the file that you want to open.", "The window shows all pictures of a folder."],
    "deu_Latn": ["Wählen Sie die Datei, die Sie öffnen möchten.", "Das Fenster zeigt alle Bilder eines Ordners."],
    "fra_Latn": ["Sélectionnez le fichier à ouvrir.", "La fenêtre affiche toutes les images d'un dossier."],
    "spa_Latn": ["Seleccione el archivo que desea abrir.", "La ventana muestra todas las imágenes de una carpeta."],
    "ita_Latn": ["Selezionare il file da aprire.", "La finestra mostra tutte le immagini di una cartella."],
    "por_Latn": ["Selecione o ficheiro que deseja abrir.", "A janela mostra todas as imagens de uma pasta."],
}


@pytest.fixture(scope="module")
def pipe() -> ConceptPipeline:
    return ConceptPipeline.from_pretrained()


def test_size_and_storage() -> None:
    assert sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()) <= 32 * 2**20
    folder = shipped_pipeline()
    assert folder is not None
    with safe_open(folder / "model" / "model.safetensors", framework="pt") as file:
        kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    assert sum(kind == "I8" for kind in kinds.values()) >= 12


def test_the_card_says_what_it_was_made_of(pipe: ConceptPipeline) -> None:
    card = pipe.card
    assert card.licence == "Apache-2.0" and set(card.languages) == set(TEXTS)
    assert card.training_data and card.training_cost and card.limits and card.recipe
    folder = shipped_pipeline()
    assert folder is not None and str(card.title) in (folder / "README.md").read_text(encoding="utf-8")


def test_its_concept_space_has_a_name(pipe: ConceptPipeline) -> None:
    codec = load_codec("small")
    assert codec.fingerprint == pipe.codec.fingerprint and codec.languages == pipe.codec.languages
    record = json.loads((ASSETS / "pipeline" / "pipeline.json").read_text(encoding="utf-8"))
    assert record["codec"]["fingerprint"] == codec.fingerprint


@pytest.mark.parametrize("lang", TEXTS)
def test_sentences_come_back_in_every_language(pipe: ConceptPipeline, lang: str) -> None:
    concepts = pipe.codec.encode(TEXTS[lang])
    assert bleu(pipe.codec.decode(concepts, lang, method="greedy"), TEXTS[lang], lang) > 50
    noise = torch.randn(concepts.shape, generator=torch.Generator().manual_seed(0))
    assert bleu(pipe.codec.decode(concepts + 0.2 * noise, lang, method="greedy"), TEXTS[lang], lang) > 35
    assert bleu(pipe.codec.decode(concepts.roll(1, 0), lang, method="greedy"), TEXTS[lang], lang) < 15


def test_it_summarises_expands_and_goes_on(pipe: ConceptPipeline) -> None:
    assert set(pipe.prompts) == {"summarize", "expand"}
    summary = pipe.summarize(ARTICLE, seed=0)
    assert len(summary.sentences) == 1 and 2 <= len(summary.text.split()) <= 20
    german = pipe.summarize(ARTICLE, lang="de", seed=0)
    assert german.lang == "deu_Latn" and german.text != summary.text
    assert 1 <= len(pipe.expand(SUMMARY, seed=0).sentences) <= 12
    written = pipe(ARTICLE, max_concepts=2, seed=0)
    assert 0 <= len(written.sentences) <= 2 and "End of text." not in written.sentences
    # What it says comes from the text: two texts, two summaries.
    other = "This library reads and writes audio files. It supports many formats. Programs can use it from C."
    assert pipe.summarize(other, seed=0).text != summary.text
