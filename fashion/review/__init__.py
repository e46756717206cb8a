"""What a change did to the models, for those who review it. Knows nothing of any one data set.

A project declares its models in the section `review` of its params.yaml (`fashion.params.Review`).
"""
