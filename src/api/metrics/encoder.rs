//! Encoder for the kinds of metrics that this server exports, each written in one call.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::util::counters::HistogramSnapshot;

/// Encoder of a metrics page.
pub(super) struct Page<'a>(pub(super) DescriptorEncoder<'a>);

/// Labels: pairs of name and value.
pub(super) type Labels<'a, const N: usize> = &'a [(&'static str, &'a str); N];

impl Page<'_> {
    pub(super) fn gauge(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: f64) -> fmt::Result {
        self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?.encode_gauge(&value)
    }

    /// A family of gauges; `all` passes each with its labels.
    pub(super) fn gauges<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        all: impl FnOnce(&mut dyn FnMut(Labels<'_, N>, f64) -> fmt::Result) -> fmt::Result,
    ) -> fmt::Result
    where
        for<'a> [(&'static str, &'a str); N]: EncodeLabelSet,
    {
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        all(&mut |labels, value| family.encode_family(labels)?.encode_gauge(&value))
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, unit: Option<&Unit>, count: u64) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, unit, MetricType::Counter)?;
        encoder.encode_counter::<NoLabelSet, _, u64>(&count, None)
    }

    /// A counter of seconds.
    pub(super) fn seconds(&mut self, name: &str, help: &str, seconds: f64) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Counter)?;
        encoder.encode_counter::<NoLabelSet, _, u64>(&seconds, None)
    }

    /// A family of counters; `all` passes each with its labels.
    pub(super) fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        all: impl FnOnce(&mut dyn FnMut(Labels<'_, N>, u64) -> fmt::Result) -> fmt::Result,
    ) -> fmt::Result
    where
        for<'a> [(&'static str, &'a str); N]: EncodeLabelSet,
    {
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Counter)?;
        all(&mut |labels, count| family.encode_family(labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None))
    }

    pub(super) fn histogram(&mut self, name: &str, help: &str, unit: Option<&Unit>, of: &Histogram) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, unit, MetricType::Histogram)?;
        encoder.encode_histogram::<NoLabelSet>(of.sum, of.count(), &of.buckets, None)
    }

    /// A family of histograms; `all` passes each with its labels.
    pub(super) fn histograms<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        all: impl FnOnce(&mut dyn FnMut(Labels<'_, N>, &Histogram) -> fmt::Result) -> fmt::Result,
    ) -> fmt::Result
    where
        for<'a> [(&'static str, &'a str); N]: EncodeLabelSet,
    {
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Histogram)?;
        all(&mut |labels, of| {
            family.encode_family(labels)?.encode_histogram::<NoLabelSet>(of.sum, of.count(), &of.buckets, None)
        })
    }
}

/// A histogram in the exported unit.
pub(super) struct Histogram {
    sum: f64,
    /// Upper bound and count of each bucket; the last bound is infinity.
    buckets: Vec<(f64, u64)>,
}

impl Histogram {
    /// Histogram from counts in a smaller unit; `per` of these make one exported unit.
    pub(super) fn new(bounds: impl Iterator<Item = u64>, buckets: &[u64], sum: u64, per: f64) -> Histogram {
        let bounds = bounds.map(|bound| bound as f64 / per).chain([f64::INFINITY]);
        Histogram { sum: sum as f64 / per, buckets: bounds.zip(buckets.iter().copied()).collect() }
    }

    pub(super) fn of(spread: &HistogramSnapshot, per: f64) -> Histogram {
        Histogram::new(spread.bounds.iter().copied(), &spread.buckets, spread.sum, per)
    }

    fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }
}
