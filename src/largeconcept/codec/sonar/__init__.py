"""SONAR as a concept space: sentences in 202 languages (and speech in 57) as vectors of 1024 channels.

Duquenne, Schwenk and Sagot 2023, *SONAR: Sentence-Level Multimodal and Language-Agnostic Representations*,
arXiv 2308.11466. Importing this package does not import torch.
"""
