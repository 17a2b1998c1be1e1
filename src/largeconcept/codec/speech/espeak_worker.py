"""Speak one text with eSpeak NG and write its samples to standard output: a process of its own, run by espeak.py.

The library is C with buffers of fixed size: an odd word can end the process that loaded it. Here that is this one.
Runs by path, isolated from the environment, with the standard library alone.

Arguments: library, folder of its data, voice. Standard input: text in UTF-8. Standard output: the rate as four bytes,
then 16-bit samples, both little-endian. Exit status: 0 done; 3 the library or its data cannot be loaded; 4 there is no
such voice; 5 it failed on the text.
"""

import contextlib
import ctypes
import os
import sys

_SYNCHRONOUS = 2  # samples go to the callback, in this thread; no sound device is opened
_DO_NOT_EXIT = 0x8000  # report missing data instead of ending the process
_UTF8 = 1  # and neither SSML nor phonemes in brackets: the text is text
_CHARACTERS = 1  # unit of positions


class LoadError(Exception):
    """The library or its data cannot be used."""


def speak(library: str, data: str, voice: str, text: bytes) -> tuple[int, list[bytes]]:
    """Return the sample rate and the blocks of 16-bit samples in the byte order of the machine.

    Functions and constants: speak_lib.h of eSpeak NG 1.52.

    Raises:
        LoadError: the library or its data cannot be loaded.
        LookupError: there is no such voice.
        RuntimeError: the library reports a failure.
    """
    try:
        espeak = ctypes.CDLL(library)
    except OSError as error:
        raise LoadError(str(error)) from None
    espeak.espeak_Initialize.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int)
    espeak.espeak_SetVoiceByName.argtypes = (ctypes.c_char_p,)
    espeak.espeak_Synth.argtypes = (
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_uint,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_uint,
        ctypes.c_void_p,
        ctypes.c_void_p,
    )
    # It keeps 160 bytes of the path, whatever the encoding: go there, and the path is short.
    try:
        os.chdir(data)
    except OSError as error:
        raise LoadError(str(error)) from None
    rate = espeak.espeak_Initialize(_SYNCHRONOUS, 0, b".", _DO_NOT_EXIT)
    if rate <= 0:
        raise LoadError(f"no usable data in {data}")
    if espeak.espeak_SetVoiceByName(voice.encode()) != 0:
        raise LookupError(voice)
    blocks: list[bytes] = []

    def receive(samples: int | None, number: int, _: int | None) -> int:
        if samples and number > 0:
            blocks.append(ctypes.string_at(samples, 2 * number))
        return 0

    callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)(receive)
    espeak.espeak_SetSynthCallback(callback)
    # The length counts the zero at the end.
    status = espeak.espeak_Synth(text, len(text) + 1, 0, _CHARACTERS, 0, _UTF8, None, None)
    if status != 0 or espeak.espeak_Synchronize() != 0:
        raise RuntimeError(f"eSpeak NG returned {status}")
    return rate, blocks


def main(arguments: list[str]) -> int:
    """Do what the module says; return the exit status."""
    try:
        library, data, voice = arguments
        rate, blocks = speak(library, data, voice, sys.stdin.buffer.read())
    except LoadError:
        return 3
    except LookupError:
        return 4
    except RuntimeError:
        return 5
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.buffer.write(rate.to_bytes(4, "little"))
        for block in blocks:
            sys.stdout.buffer.write(block if sys.byteorder == "little" else _swapped(block))
        sys.stdout.buffer.flush()
    return 0


def _swapped(block: bytes) -> bytes:
    result = bytearray(block)
    result[::2], result[1::2] = block[1::2], block[::2]
    return bytes(result)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
