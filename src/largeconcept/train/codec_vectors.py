"""Concepts of a whole sentence table by another encoder, made once and kept beside the run.

Shape letters: N sentences, C concept dimension.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from largeconcept.codec.encoders import ExternalEncoder
from largeconcept.codec.tokenizer import Tokenizer
from largeconcept.data.sentence_table import SentenceTable
from largeconcept.io import sync_folder

CHUNK = 4096


def table_concepts(
    encoder: ExternalEncoder,
    table: SentenceTable,
    tokenizer: Tokenizer,
    folder: str | Path,
    on_progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float16]:
    """Return (N, C) concepts of a table's sentences, mapped from a file that is written first if it is not there.

    Interrupted work goes on where it stopped: the file grows in order and gets its name when it is whole.

    Args:
        encoder: makes them.
        table: its tokens are turned back into text.
        tokenizer: that the table was made with.
        folder: where the file is: ``concepts-FINGERPRINT.f16``, rows of float16.
        on_progress: called with sentences done and sentences in all.
    """
    folder, total, width = Path(folder), len(table), encoder.dim
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"concepts-{encoder.fingerprint}.f16"
    if not path.is_file() or path.stat().st_size != 2 * total * width:
        growing = path.with_suffix(".part")
        with growing.open("ab") as file:
            done = min(file.tell() // (2 * width) // CHUNK * CHUNK, total)
            file.truncate(done * 2 * width)
            for start in range(done, total, CHUNK):
                stop = min(start + CHUNK, total)
                rows = [table.tokens[table.offsets[i] : table.offsets[i + 1]].tolist() for i in range(start, stop)]
                file.write(encoder.encode(tokenizer.decode(rows)).half().numpy().tobytes())
                if on_progress is not None:
                    on_progress(stop, total)
            file.flush()
            os.fsync(file.fileno())
        growing.replace(path)
        sync_folder(folder)
    return np.memmap(path, np.float16, "r", shape=(total, width))
