"""How fast a recipe trains here, beside the loop that the public toolkits run.

`textbook` is that loop, `literal_crd` its CRD; `ours` is the only file that knows kdcli's own loop.
`timing` runs them in turns, `memory`, `work` and `rates` say what a step holds, what it must do and
how fast this machine could do it; `comparison` puts them side by side, `losses` the losses alone.
`constants`, a command of its own, measures what floors are computed from, by the `kernels`.
"""
