"""Every bound we enforce, with its unit and the reason for its value."""

from typing import Final

PLAN_FILE_BYTES_MAX: Final = 1 << 20  # a plan is read by people; 1 MiB is a hundred pages
ENVELOPE_BYTES_MAX: Final = 256 << 20  # a 50 MB model with room; refused before it is parsed
PARAMETERS_BYTES_MAX: Final = 200 << 20  # what an envelope may carry after its headers
ENROLMENT_FILE_BYTES_MAX: Final = 4 << 20  # a roster of 10,000 sites
HEADER_BYTES_MAX: Final = 64 << 10  # envelope headers are about 1 kB
REQUEST_AGE_S_MAX: Final = 7 * 24 * 3600  # no request lives longer than a week
CLOCK_SKEW_S_MAX: Final = (
    300  # hospital clocks differ; Flower's node authentication allows the same
)
SITES_MAX: Final = 10_000
FEATURES_MAX: Final = 10_000
PATIENT_NUMBERS_MAX: Final = 100_000  # columns times rows of a patient: 0.4 MB in memory
TIME_BINS_MAX: Final = 336  # two weeks by the hour
ROUNDS_MAX: Final = 10_000
LOCAL_STEPS_MAX: Final = 100_000
CATEGORIES_MAX: Final = 200  # levels of one categorical feature
PLAN_CODES_MAX: Final = 256  # Charlson's tumours alone are 198 codes in three editions of the ICD
LINE_BYTES_MAX: Final = 1 << 20  # a CSV line longer than 1 MiB is not a table
FHIR_LINE_BYTES_MAX: Final = (
    64 << 20
)  # a resource with an attached document; nothing clinical is larger
FHIR_BUNDLE_BYTES_MAX: Final = 512 << 20  # one patient's whole record; read at once, unpacked
SOURCE_CODES_LISTED_MAX: Final = (
    10_000  # unmapped codes kept by name; a steward reads the first few
)
TABLE_COLUMNS_MAX: Final = 16_384
OUT_OF_RANGE_FRACTION_MAX: Final = (
    0.2  # above it the declared unit is more likely wrong than the patients
)
PARAMETER_MAGNITUDE_MAX: Final = 1e6  # beyond it one patient can overflow what others do not
EPSILON_MAX: Final = 100.0  # beyond it the statement means nothing
DELTA_MAX: Final = 1e-2
LEDGER_RECORDS_PER_RELEASE_MAX: Final = 16
REFUSAL_TEXT_BYTES_MAX: Final = 512
COHORT_SIZE_MIN: Final = 20  # default lower bound for a site's minimum cohort
DELTA_MIN: Final = 1e-9  # below it the accountant's FFT arithmetic may round epsilon down
DELTA_PLAN_MAX: Final = 1e-3  # a larger delta allows one of a thousand records to be published
NOISE_MULTIPLIER_MIN: Final = 0.05  # epsilon of one release is above 100 there
NOISE_MULTIPLIER_MAX: Final = 100_000.0  # a plan that needs more noise learns nothing
DISCRETE_NOISE_MULTIPLIER_MAX: Final = 10_000.0  # its privacy loss is computed integer by integer
SUM_NOISE_MULTIPLIER_MIN: Final = 1.0  # a site's own in a secure sum; a pool of less is no Gaussian
CELLS_PER_PATIENT_MAX: Final = 10_000  # a selection counts each of its candidates once
CLASSES_MAX: Final = 21  # of a candidate in a selection: twenty levels, and none
JOINT_CANDIDATES_MAX: Final = 100  # 4,950 pairs; more drown each other in noise
COUNTED_CELLS_MAX: Final = 250_000  # of one count; 1 MB, and two seconds of noise
STEPS_TOTAL_MAX: Final = 1_000_000  # rounds times local steps; accounting stays below a second
LEDGER_EXPORT_BYTES_MAX: Final = 64 << 20  # about 100,000 entries
LEDGER_ENTRY_BYTES_MAX: Final = 16 << 10  # sixteen mechanism records and the entry's own fields
PERIODS_MAX: Final = 520  # of monitoring; ten years of weeks
REPORT_BYTES_MAX: Final = 4 << 20  # of a sealed monitoring report; a large one has 50 kB
REPORT_RECIPIENTS_MAX: Final = 32  # boards and auditors who may open one report
NOTICE_BYTES_MAX: Final = 8 << 20  # a roster of 10,000 sites, or one partial sum
ROSTER_BOARDS_MAX: Final = 256  # sealing keys, the retired ones too
DECIDERS_MAX: Final = 100
SUMMED_BYTES_MAX: Final = 2 << 20  # of a sealed partial sum: 250,000 cells, with room
ROSTER_GRACE_S_MAX: Final = 366 * 24 * 3600  # a site may be off the network for long
