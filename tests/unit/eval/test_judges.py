"""BLASER 2.0 and MuTox: their formulas by hand, their files, and what they refuse."""

import json
import math
from collections import OrderedDict

import pytest
import torch

from largeconcept.codec.toy import ToyCodec
from largeconcept.errors import CheckpointError, ConfigError, DataError
from largeconcept.eval import judges
from largeconcept.eval.blaser import Blaser
from largeconcept.eval.mutox import MuTox

pytestmark = pytest.mark.filterwarnings("ignore:The weights of BLASER:UserWarning")
DIM = 6


def draw(judge, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in judge.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return judge


def concepts(rows=5, seed=1, dim=DIM):
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))


def published_blaser(judge):
    """As Meta's file: layers counted among dropouts and activations, inside ``model``."""
    numbers = (1, 4, 7)
    state = judge.state_dict()
    return {
        "model": OrderedDict((f"mlp.{numbers[int(n.split('.')[1])]}.{n.split('.')[2]}", t) for n, t in state.items())
    }


def published_mutox(judge):
    state = {f"model_all.{n.split('.')[1]}.1.{n.split('.')[2]}": t for n, t in judge.state_dict().items()}
    return {"model": {"center": torch.zeros(3), **state}}


# ------------------------------------------------------------------ formulas


def test_blaser_features_by_hand():
    source, translation, reference = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, -2.0]]), torch.tensor([[5.0, 0.0]])
    features = Blaser("ref", 2, [3]).features(source, translation, reference)[0].tolist()
    # Unit vectors: source (.6, .8), translation (0, -1), reference (1, 0).
    assert features == pytest.approx([1, 0, 0, -1, 0, -0.8, 0, 0, 0.6, 1.8, 1, 1])
    features = Blaser("qe", 2, [3]).features(source, translation)[0].tolist()
    assert features == pytest.approx([0.6, 0.8, 0, -1, 0, -0.8, 0.6, 1.8])


def test_blaser_perceptron_by_hand():
    judge = Blaser("qe", 1, [1, 1])
    for layer, (weight, bias) in zip(
        judge.layers, [([0.5, 0.25, 2.0, 1.0], 0.1), ([3.0], -0.2), ([2.0], 0.5)], strict=True
    ):
        layer.weight.data = torch.tensor([weight])
        layer.bias.data = torch.tensor([bias])
    # Both vectors become 1: features 1, 1, 1, 0.
    hidden = math.tanh(0.5 + 0.25 + 2.0 + 0.1)
    hidden = math.tanh(3 * hidden - 0.2)
    got = judge.score(torch.tensor([[0.3]]), torch.tensor([[7.0]]))
    assert got.tolist() == pytest.approx([2 * hidden + 0.5])


def test_mutox_by_hand():
    judge = MuTox(2, [2, 1])
    values = [([[1.0, -1.0], [2.0, 0.5]], [0.0, -3.0]), ([[2.0, 1.0]], [-1.0]), ([[0.5]], [0.25])]
    for layer, (weight, bias) in zip(judge.layers, values, strict=True):
        layer.weight.data, layer.bias.data = torch.tensor(weight), torch.tensor(bias)
    # (2, 1): first layer 1 and 1.5, second 2 + 1.5 - 1 = 2.5, logit 1.5. (-1, 1): -2 and -4.5, so 0, 0; -1, so 0; 0.25.
    logits = judge.score(torch.tensor([[2.0, 1.0], [-1.0, 1.0]]))
    assert logits.tolist() == pytest.approx([1.5, 0.25])
    probability = judge.score(torch.tensor([[2.0, 1.0]]), probability=True)
    assert probability.tolist() == pytest.approx([1 / (1 + math.exp(-1.5))])


def test_released_sizes():
    def count(judge):
        return sum(parameter.numel() for parameter in judge.parameters())

    with torch.device("meta"):
        assert count(Blaser("ref")) == 6144 * 3072 + 3072 + 3072 * 1536 + 1536 + 1536 + 1  # 23.6 million
        assert count(Blaser("qe")) == 4096 * 3072 + 3072 + 3072 * 1536 + 1536 + 1536 + 1  # 17.3 million
        assert count(MuTox()) == 1024 * 512 + 512 + 512 * 128 + 128 + 128 + 1


# ------------------------------------------------------------------ scoring


@pytest.mark.parametrize("kind", ["ref", "qe"])
def test_scores_do_not_depend_on_batches_or_lengths(kind, monkeypatch):
    judge = draw(Blaser(kind, DIM, [4, 3]))
    given = [concepts(7, seed) for seed in range(3 if kind == "ref" else 2)]
    whole = judge.score(*given)
    assert whole.shape == (7,) and whole.dtype == torch.float32
    monkeypatch.setattr("largeconcept.eval.blaser.BATCH", 3)
    torch.testing.assert_close(judge.score(*given), whole)
    torch.testing.assert_close(judge.score(*(5.0 * one for one in given)), whole)
    assert judge.score(*(one[:0] for one in given)).shape == (0,)


def test_half_precision_concepts_are_taken():
    judge = draw(MuTox(DIM, [4, 3]))
    torch.testing.assert_close(judge.score(concepts().half()), judge.score(concepts().half().float()))


def test_gradients_reach_the_concepts():
    given = [concepts(2, seed).requires_grad_() for seed in range(3)]
    draw(Blaser("ref", DIM, [4, 3]))(*given).sum().backward()
    assert all(float(one.grad.abs().max()) > 0 for one in given)


def test_texts_go_through_the_codec():
    sentences = ["Tim had a red ball.", "The ball rolled away."]
    codec = ToyCodec(16, sentences)
    judge, toxic = draw(Blaser("ref", 16, [4, 3])), draw(MuTox(16, [4, 3]))
    z = codec.encode(sentences)
    got = judge.score_texts(codec, sentences, sentences[::-1], sentences)
    torch.testing.assert_close(got, judge.score(z, z.flip(0), z))
    torch.testing.assert_close(toxic.score_texts(codec, sentences), toxic.score(z))
    with pytest.raises(ConfigError, match="another concept space"):
        draw(MuTox(DIM)).score_texts(codec, sentences)


def test_what_cannot_be_judged():
    ref, qe = Blaser("ref", DIM, [4]), Blaser("qe", DIM, [4])
    with pytest.raises(ConfigError, match="needs a reference"):
        ref.score(concepts(), concepts())
    with pytest.raises(ConfigError, match="without a reference"):
        qe.score(concepts(), concepts(), concepts())
    with pytest.raises(DataError, match=r"translation.*\(5, 6\).*\(4, 6\)"):
        qe.score(concepts(5), concepts(4))
    with pytest.raises(DataError, match="source"):
        qe.score(concepts(dim=7), concepts())
    with pytest.raises(DataError, match="not a tensor"):
        qe.score([[0.0] * DIM], concepts(1))
    with pytest.raises(DataError, match="floating"):
        qe.score(concepts().long(), concepts())
    broken = concepts()
    broken[3, 2] = math.nan
    with pytest.raises(DataError, match="translation, row 3"):
        qe.score(concepts(), broken)
    with pytest.raises(ConfigError, match="kind"):
        Blaser("comet", DIM)


# ------------------------------------------------------------------ files


@pytest.mark.parametrize("kind", ["ref", "qe"])
@pytest.mark.parametrize("wrapped", [True, False])
def test_published_blaser(tmp_path, kind, wrapped):
    judge = draw(Blaser(kind, DIM, [4, 3]))
    data = published_blaser(judge)
    torch.save(data if wrapped else data["model"], tmp_path / "model.pt")
    for place in (tmp_path / "model.pt", tmp_path):
        found = Blaser.from_pretrained(place, concept_dim=DIM)
        assert found.kind == kind and found.hidden_dims == (4, 3)
        for name, tensor in judge.state_dict().items():
            assert torch.equal(found.state_dict()[name], tensor)


def test_published_mutox(tmp_path):
    judge = draw(MuTox(DIM, [4, 3]))
    torch.save(published_mutox(judge), tmp_path / "mutox.pt")  # with a tensor that is none of the classifier's
    found = MuTox.from_pretrained(tmp_path, concept_dim=DIM)
    torch.testing.assert_close(found.score(concepts()), judge.score(concepts()), rtol=0, atol=0)


@pytest.mark.parametrize("judge", [Blaser("ref", DIM, [4, 3]), Blaser("qe", DIM, [5]), MuTox(DIM, [4, 3])], ids=repr)
def test_saved_folder(tmp_path, judge, monkeypatch):
    folder = draw(judge).save_pretrained(tmp_path / "judge")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    config = json.loads((folder / "config.json").read_text())
    licence = "MIT" if isinstance(judge, MuTox) else "CC-BY-NC-4.0"
    assert config["licence"] == licence
    assert f"license: {licence.lower()}" in (folder / "README.md").read_text()
    told = []
    monkeypatch.setattr(judges, "announce_licence", lambda *words: told.append(words))
    found = type(judge).from_pretrained(folder)
    assert told == [(f"The weights of {judge.title}", licence)]
    assert found.describe() == judge.describe()
    assert all(torch.equal(found.state_dict()[name], tensor) for name, tensor in judge.state_dict().items())


def test_the_licence_is_told(tmp_path):
    from largeconcept.codec.sonar import files

    files._TOLD.discard("The weights of BLASER 2.0")
    folder = draw(Blaser("qe", DIM, [4])).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="BLASER 2.0 are licensed CC-BY-NC-4.0"):
        Blaser.from_pretrained(folder)


def test_wrong_files(tmp_path):
    good = published_blaser(draw(Blaser("ref", DIM, [4, 3])))["model"]

    def refused(data, *parts, cls=Blaser, dim=DIM):
        torch.save(data, tmp_path / "model.pt")
        with pytest.raises(CheckpointError) as caught:
            cls.from_pretrained(tmp_path / "model.pt", concept_dim=dim)
        for part in ("model.pt", *parts):
            assert part in str(caught.value), caught.value

    refused(good, "6144 or 4096 features of concepts of 1024 channels", "36", dim=None)
    refused(good, "not the weights of MuTox", "mlp.1.weight", cls=MuTox)
    refused(published_mutox(MuTox(DIM, [4])), "not the weights of BLASER 2.0", "model_all.0.1.weight")
    refused(published_mutox(MuTox(DIM, [4])), "8 channels", "6 channels", cls=MuTox, dim=8)
    refused({name: tensor for name, tensor in good.items() if name != "mlp.4.bias"}, "missing", "4.bias")
    refused({**good, "mlp.4.weight": torch.zeros(3, 9)}, "another shape", "layers.0.weight")
    refused({**good, "mlp.4.weight": torch.zeros(3)}, "not a matrix")
    refused({**good, "mlp.4.weight": "text"}, "not a tensor")
    refused([1, 2], "list")
    refused({}, "nothing")
    (tmp_path / "model.pt").write_bytes(b"nothing of the kind")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        Blaser.from_pretrained(tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="file not found"):
        Blaser.from_pretrained(tmp_path / "no.pt")
    with pytest.raises(CheckpointError, match="file not found"):
        Blaser.from_pretrained(tmp_path / "no.safetensors")


def test_wrong_folders(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"config\.json"):
        Blaser.from_pretrained(tmp_path / "empty")
    folder = draw(MuTox(DIM, [4])).save_pretrained(tmp_path / "mutox")
    with pytest.raises(CheckpointError, match="expected blaser; got mutox"):
        Blaser.from_pretrained(folder)
    with pytest.raises(CheckpointError, match="another concept dimension"):
        MuTox.from_pretrained(folder, concept_dim=1024)
    (folder / "model.safetensors").write_bytes(b"{}")
    with pytest.raises(CheckpointError, match="safetensors"):
        MuTox.from_pretrained(folder)


# ------------------------------------------------------------------ command line


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setattr(judges, "announce_licence", lambda *words: None)
    sentences = ["Tim had a red ball.", "The ball rolled away.", "Tim ran after it."]
    codec = tmp_path / "toy"
    ToyCodec(16, sentences).save_pretrained(codec)
    (tmp_path / "a.txt").write_text("\n".join(sentences) + "\n")
    (tmp_path / "b.txt").write_text("\r\n".join(sentences[::-1]))
    for kind in ("ref", "qe"):
        draw(Blaser(kind, 16, [4, 3])).save_pretrained(tmp_path / kind)
    draw(MuTox(16, [4, 3])).save_pretrained(tmp_path / "mutox")
    return tmp_path


def blaser(files, weights="qe", **changes):
    options = {
        "weights": files / weights,
        "codec": files / "toy",
        "source": files / "a.txt",
        "translation": files / "b.txt",
    }
    options |= changes
    return ["eval", "blaser", *(word for name, value in options.items() for word in (f"--{name}", value))]


def test_blaser_command(cli, files):
    out = cli(*blaser(files)).ok().splitlines()
    z = ToyCodec.from_pretrained(files / "toy").encode(
        ["Tim had a red ball.", "The ball rolled away.", "Tim ran after it."]
    )
    want = Blaser.from_pretrained(files / "qe").score(z, z.flip(0))
    assert out == [f"{score:.4f}" for score in want.tolist()]
    result = json.loads(cli(*blaser(files, "ref", reference=files / "a.txt"), "--json").ok())
    want = Blaser.from_pretrained(files / "ref").score(z, z.flip(0), z)
    assert result["scores"] == pytest.approx(want.tolist())
    assert (result["kind"], result["count"], result["mean"]) == ("ref", 3, pytest.approx(float(want.mean())))


def test_mutox_command(cli, files):
    command = ["eval", "mutox", files / "a.txt", "--weights", files / "mutox", "--codec", files / "toy"]
    result = json.loads(cli(*command, "--json").ok())
    assert result["scores"] == pytest.approx([1 / (1 + math.exp(-logit)) for logit in result["logits"]])
    assert cli(*command).ok().splitlines() == [f"{score:.4f}" for score in result["scores"]]


def test_mistakes_on_the_command_line(cli, files):
    (files / "two.txt").write_text("One.\nTwo.\n")
    (files / "gap.txt").write_text("One.\n \nTwo.\n")
    (files / "none.txt").write_text("\n")
    cli(*blaser(files, translation=files / "two.txt")).error("two.txt", "3 lines", "got 2")
    cli(*blaser(files, source=files / "gap.txt")).error("gap.txt:2", "no sentence")
    cli(*blaser(files, source=files / "none.txt")).error("none.txt", "no sentence")
    cli(*blaser(files, source=files / "nowhere.txt")).error("nowhere.txt", "not found")
    cli(*blaser(files, reference=files / "a.txt")).error("without references", "leave out --reference")
    cli(*blaser(files, "ref")).error("compares with references", "give --reference")
    cli(*blaser(files, "mutox")).error("not a saved BLASER")
    cli(*blaser(files, codec="starter")).error("another concept space", "16 channels")
    cli("eval", "mutox", files / "a.txt", "--weights", files / "qe", "--codec", "toy").error("not a saved MuTox")
    cli(*blaser(files, device="nonsense")).error("device nonsense")
    assert len(cli(*blaser(files, device="cpu")).ok().splitlines()) == 3
