"""Replicas that need not import torch: each is forked off a process that has.

Importing torch, diffusers and transformers costs a replica two thirds of its life in these tests. Here `sitecustomize`,
which Python imports first of all, has a replica's command hand its socket over to `forks`, and wait for what becomes of
it. What runs is the replica itself, in a process of its own; that it can also be started without this is what
`test_serve` and `test_readme` show, which are COLD.
"""
