"""How fast `leasehold` is, measured beside Prefect's client on the same server: ``make bench``.

`cases` says what is measured and what is aimed for; `workers` are the programs that are measured;
`driver` runs them in turn; `figures`, `report` and `chart` say how it went.
"""
