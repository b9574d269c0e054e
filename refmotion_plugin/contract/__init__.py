"""What both sides agree on: records, conventions, parameters, files of a job. numpy, stdlib, emtable and pydantic only."""
