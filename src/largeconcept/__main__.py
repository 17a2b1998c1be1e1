"""``python -m largeconcept`` is the ``largeconcept`` command; ``torchrun -m largeconcept train …`` needs it."""

from largeconcept.cli.main import main

if __name__ == "__main__":
    main()
