"""A running sampler stops, asks the user who queued it, and goes on.

`messages`: what server and browser say to each other. `pause`: one pause, from one state to the next. `registry`: all
that are open, and which browsers can show them. `answers`: what a browser may answer, checked. `routes`: how it reaches
the server. `asking`: what the sampler's thread does. Who pauses is in `sampling`.
"""
