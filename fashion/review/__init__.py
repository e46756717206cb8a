"""Review of a change: compares the models of two revisions. It knows no particular data set or model.

`snapshot` reads one revision, `compare` compares two snapshots, `gate` checks the result, `report` and `figures` show
it.
"""
