"""The building blocks of every model: plain modules and functions on tensors, without configuration or state of
their own.

Each file holds one block: `norms`, `rope`, `positions`, `attention`, `kv_cache`, `masks`, `mlp`, `adaln`,
    `timestep`, and
`decoder`, the causal stack made of them.
"""
