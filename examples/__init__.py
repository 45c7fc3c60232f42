"""Programs that use procpool, each run by the tests."""
