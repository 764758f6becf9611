"""What guidance while sampling does for prompts with two subjects, on the second toy world (`make bench-guidance`).

`asked` has the prompts and how a picture is measured, `tables` the numbers with their intervals, `sampled` the toy
model with and without Keep Words and Place Words. A new way to guide is an entry of `sampled.VARIANTS`.
"""
