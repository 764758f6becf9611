"""What the user sees while a node runs and afterwards.

`running_node`: progress, text and cancel. `heat_maps`: the overlays and their sheet. `inspector`: the file that the
browser's attention inspector reads.
"""
