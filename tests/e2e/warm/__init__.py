"""Replicas and commands that need not import what they are made of: each is forked off a process that has.

Importing torch, diffusers and transformers costs a replica two thirds of its life in these tests, and a command its
libraries most of its own. Here `sitecustomize`, which Python imports first of all, has such a process hand itself over
to `forks`, and wait for what becomes of it. What runs is the replica or the command itself, in a process of its own.
That either starts without this is what `test_serve` and `test_readme` show, which are COLD.
"""
