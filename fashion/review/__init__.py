"""Review of a change: compares the models of two revisions. It does not depend on a particular data set or model.

`snapshot` reads one revision, `compare` compares two snapshots, `gate` checks the result, `report` and `figures` show
it.
"""
