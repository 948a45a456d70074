"""Programs that Daybook is compared with: the bare framework, a plain CRUD API, another package, and slower command APIs."""
