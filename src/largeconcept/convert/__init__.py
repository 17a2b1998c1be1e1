"""Weights of others, read into the models of this library and written back.

Import the modules by name (``from largeconcept.convert import meta_lcm``): importing this package does not import
torch.
"""
