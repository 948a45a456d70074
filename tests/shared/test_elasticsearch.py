"""Search in Elasticsearch 7.10, by the same client and the same code as in OpenSearch: the tests of the sink and of the query
that tell the two servers apart, run once more.
"""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from dev.search_servers import ElasticsearchServer
from shared.settings import Settings
from tests.harness.projecting import Ledger, open_ledger
from tests.harness.search import empty_search, with_search
from tests.projector.test_search_sink import (  # noqa: F401 # collected here too
    test_a_killed_server_loses_nothing_and_the_worker_goes_on,
    test_a_late_write_of_an_earlier_version_changes_nothing,
    test_after_a_crash_between_data_and_checkpoint_other_batches_make_the_same,
    test_an_alias_shows_people_the_documents_of_the_live_generation_alone,
    test_verify_and_the_doctor_find_an_index_with_another_mapping,
)
from tests.projector.test_sinks_conform import (  # noqa: F401 # collected here too
    Sunk,
    test_a_batch_is_applied_once_whether_it_comes_twice_late_or_too_early,
    test_a_batch_that_is_cut_off_at_any_moment_is_applied_whole_or_not_at_all,
    test_a_pause_holds_workers_and_rebuilds_until_it_ends,
    test_a_rebuild_takes_the_place_of_the_live_generation_which_takes_no_more_batches,
    test_a_store_that_was_emptied_is_filled_again_from_the_log,
    test_an_erased_person_is_gone,
    test_an_event_that_cannot_be_applied_is_put_aside_and_its_streams_wait,
    test_the_same_batch_from_many_workers_at_once_is_applied_once,
)
from tests.query_api.test_search import (  # noqa: F401 # collected here too
    test_customers_find_their_own_and_learn_nothing_of_others,
    test_filters_facets_and_pages_agree,
    test_words_are_found_in_references_metadata_and_names_also_nearly,
)


@pytest_asyncio.fixture
async def searching(settings: Settings, elasticsearch: ElasticsearchServer) -> Settings:
    return with_search(settings, elasticsearch)


@pytest.fixture
def opensearch(elasticsearch: ElasticsearchServer) -> ElasticsearchServer:
    """The server that the test of a killed one kills."""
    return elasticsearch


@pytest_asyncio.fixture
async def ledger(searching: Settings) -> AsyncIterator[Ledger]:
    async with open_ledger(searching) as ledger:
        yield ledger
        await empty_search(ledger.stores.optional["search"])


@pytest_asyncio.fixture
async def sunk(ledger: Ledger) -> Sunk:
    return Sunk(ledger, "search")
