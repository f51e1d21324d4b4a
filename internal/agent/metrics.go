package agent

import (
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/unmasq/unmasq/internal/kernel/nft"
)

// metrics of one agent, in a registry of its own.
type metrics struct {
	registry   *prometheus.Registry
	reloads    *prometheus.CounterVec
	writes     *prometheus.CounterVec
	writeTime  prometheus.Gauge
	repairs    *prometheus.CounterVec
	lastRepair *prometheus.GaugeVec
	recent     recent // what was undone, for reports
}

func newMetrics(a *Agent) *metrics {
	m := &metrics{
		registry:   prometheus.NewRegistry(),
		reloads:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "unmasq_config_reloads_total", Help: "Times the documents were read, by result: ok or refused."}, []string{"result"}),
		writes:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "unmasq_table_writes_total", Help: "Times the table was brought up to date, by result: ok or error."}, []string{"result"}),
		writeTime:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "unmasq_table_last_write_seconds", Help: "How long compiling and writing took the last time."}),
		repairs:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "unmasq_table_repairs_total", Help: "Changes to the table by other processes that were undone, by process name."}, []string{"process"}),
		lastRepair: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "unmasq_table_last_repair_timestamp_seconds", Help: "When the table was last restored, and whose change was undone."}, []string{"process", "pid"}),
	}
	ready := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "unmasq_ready", Help: "1 if the documents as they are now are in force."}, func() float64 {
		return oneIf(a.status.problem() == nil)
	})
	config := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "unmasq_config_valid", Help: "1 if the documents as they are now were accepted."}, func() float64 {
		a.status.mu.Lock()
		defer a.status.mu.Unlock()
		return oneIf(a.status.config == nil)
	})
	owned := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "unmasq_table_ownership", Help: "1 if the kernel lets nobody else change the table."}, func() float64 {
		return oneIf(a.features.Ownership)
	})
	if a.opts.Cluster != nil {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "unmasq_cluster_followed", Help: "1 if the Kubernetes API is followed; else what was last known is in force."}, func() float64 {
			return oneIf(a.opts.Cluster.Stale() == "")
		}))
	}
	m.registry.MustRegister(m.reloads, m.writes, m.writeTime, m.repairs, m.lastRepair, ready, config, owned, ruleCounters{},
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewGoCollector())
	return m
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (m *metrics) reloaded(err error) {
	if err != nil {
		m.reloads.WithLabelValues("refused").Inc()
		return
	}
	m.reloads.WithLabelValues("ok").Inc()
}

func (m *metrics) wrote(err error, took time.Duration) {
	if err != nil {
		m.writes.WithLabelValues("error").Inc()
		return
	}
	m.writes.WithLabelValues("ok").Inc()
	m.writeTime.Set(took.Seconds())
}

func (m *metrics) intruded(i nft.Intrusion) {
	name := i.Name
	if i.Lost {
		name = "unknown"
	}
	m.recent.note(i, time.Now())
	m.repairs.WithLabelValues(name).Inc()
	m.lastRepair.Reset() // one series: pids are many
	m.lastRepair.WithLabelValues(name, fmt.Sprint(i.PID)).SetToCurrentTime()
}

// ruleCounters reads the kernel's counters when asked for.
type ruleCounters struct{}

func (ruleCounters) packets() *prometheus.Desc {
	return prometheus.NewDesc("unmasq_rule_connections_total", "Connections that a rule decided: their first packets.", []string{"policy", "rule"}, nil)
}

func (r ruleCounters) Describe(ch chan<- *prometheus.Desc) { ch <- r.packets() }

func (r ruleCounters) Collect(ch chan<- prometheus.Metric) {
	counts, err := nft.Counts()
	if err != nil {
		ch <- prometheus.NewInvalidMetric(r.packets(), err)
		return
	}
	for name, count := range counts {
		id := strings.TrimPrefix(name, "rule/")
		document, rule, _ := strings.Cut(id, "/")
		ch <- prometheus.MustNewConstMetric(r.packets(), prometheus.CounterValue, float64(count.Packets), document, rule)
	}
}
