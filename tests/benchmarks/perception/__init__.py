"""What the model sees without training, on held-out toy pictures whose masks are known (`make bench-perception`).

`world` has the pictures and the toy model, `tables` the numbers with their standard errors, `methods` one module for
each method. A new method is a module there with `rows(world)`, which returns its lines of any tables, and its name in
`methods.METHODS`.
"""
