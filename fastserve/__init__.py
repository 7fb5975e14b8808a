"""fastserve, an online feature server: the names with which features are defined.

Importing this is light: no NumPy, no Arrow, no event loop. What serves, stores and ingests is imported from
its own package.
"""

from __future__ import annotations

from fastserve.errors import DefinitionError, DefinitionErrors, FastserveError
from fastserve.sdk.calculation import Calculation
from fastserve.sdk.entity import Entity
from fastserve.sdk.feast_format import FeastFormat
from fastserve.sdk.features import Aggregate, Attribute
from fastserve.sdk.functions import (
    AggregateFunction,
    approx_count_distinct,
    approx_percentile,
    first,
    first_distinct,
    last,
    last_distinct,
)
from fastserve.sdk.on_demand import OnDemandFeatureView, RequestContext, on_demand_feature_view
from fastserve.sdk.reference import FeatureViewReference, OnDemandReference
from fastserve.sdk.row_format import AttributesFormat
from fastserve.sdk.service import FeatureService
from fastserve.sdk.sources import ExternalSource, FileSource, PushSource, RequestSource
from fastserve.sdk.types import (
    Array,
    Bool,
    DataType,
    Field,
    Float32,
    Float64,
    Int64,
    Map,
    String,
    Struct,
    Timestamp,
)
from fastserve.sdk.views import FeatureView
from fastserve.sdk.windows import LifetimeWindow, TimeWindow, TimeWindowSeries

__version__ = "0.1.0"

__all__ = [
    "Aggregate",
    "AggregateFunction",
    "Array",
    "Attribute",
    "AttributesFormat",
    "Bool",
    "Calculation",
    "DataType",
    "DefinitionError",
    "DefinitionErrors",
    "Entity",
    "ExternalSource",
    "FastserveError",
    "FeastFormat",
    "FeatureService",
    "FeatureView",
    "FeatureViewReference",
    "Field",
    "FileSource",
    "Float32",
    "Float64",
    "Int64",
    "LifetimeWindow",
    "Map",
    "OnDemandFeatureView",
    "OnDemandReference",
    "PushSource",
    "RequestContext",
    "RequestSource",
    "String",
    "Struct",
    "TimeWindow",
    "TimeWindowSeries",
    "Timestamp",
    "__version__",
    "approx_count_distinct",
    "approx_percentile",
    "first",
    "first_distinct",
    "last",
    "last_distinct",
    "on_demand_feature_view",
]
