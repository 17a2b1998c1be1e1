"""Diffusion as pure maths: schedules, parameterization, weighting, guidance, samplers, random numbers.

Nothing here knows a network: samplers take a callable, and schedules give coefficients. Import the modules by name
(``from largeconcept.diffusion.schedules import NoiseSchedule``); importing this package does not import torch.
"""
