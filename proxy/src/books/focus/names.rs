//! The columns of FOCUS by version. What does not apply to models (regions, reservations, commitments)
//! is there and null.

/// All columns of the cost and usage data set of 1.2.
pub(super) const V12: [&str; 57] = [
    "AvailabilityZone",
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingAccountType",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "CapacityReservationId",
    "CapacityReservationStatus",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "CommitmentDiscountCategory",
    "CommitmentDiscountId",
    "CommitmentDiscountName",
    "CommitmentDiscountQuantity",
    "CommitmentDiscountStatus",
    "CommitmentDiscountType",
    "CommitmentDiscountUnit",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "InvoiceId",
    "InvoiceIssuerName",
    "ListCost",
    "ListUnitPrice",
    "PricingCategory",
    "PricingCurrency",
    "PricingCurrencyContractedUnitPrice",
    "PricingCurrencyEffectiveCost",
    "PricingCurrencyListUnitPrice",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "RegionId",
    "RegionName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "ServiceSubcategory",
    "SkuId",
    "SkuMeter",
    "SkuPriceDetails",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
    "SubAccountType",
    "Tags",
];

/// Added by 1.3: split costs, contracts, and who provides what.
pub(super) const NEW_IN_13: [&str; 8] = [
    "AllocatedMethodDetails",
    "AllocatedMethodId",
    "AllocatedResourceId",
    "AllocatedResourceName",
    "AllocatedTags",
    "ContractApplied",
    "HostProviderName",
    "ServiceProviderName",
];

/// Added by 1.4 to this data set.
pub(super) const NEW_IN_14: [&str; 2] = ["CommitmentProgramEligibilityDetails", "InvoiceDetailId"];

/// Deprecated by 1.3 and gone in 1.4.
pub(super) const GONE_IN_14: [&str; 2] = ["ProviderName", "PublisherName"];

/// Ours: the specification lets anybody add columns that begin so.
pub(super) const OURS: [&str; 12] = [
    "x_BaselineCost",
    "x_CorrectionKind",
    "x_Endpoint",
    "x_KeyId",
    "x_Lane",
    "x_Model",
    "x_Requests",
    "x_Team",
    "x_TokenCacheAction",
    "x_TokenClass",
    "x_TokenDirection",
    "x_UsageSource",
];
