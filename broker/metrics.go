package broker

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
)

// collectWithin bounds what a scrape asks of the server.
const collectWithin = time.Second

// A collector makes metrics when it is asked for them.
type collector struct {
	descs   []*prometheus.Desc
	collect func(to chan<- prometheus.Metric)
}

// Describe is for prometheus.Collector.
func (c collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		to <- d
	}
}

// Collect is for prometheus.Collector.
func (c collector) Collect(to chan<- prometheus.Metric) { c.collect(to) }

// ConnectionCollector tells how long the server takes to answer. There is no figure while
// it does not.
func ConnectionCollector(nc *nats.Conn) prometheus.Collector {
	rtt := prometheus.NewDesc("vramjet_nats_rtt_seconds", "Until the NATS server answered.", nil, nil)
	return collector{[]*prometheus.Desc{rtt}, func(to chan<- prometheus.Metric) {
		began := time.Now()
		if nc.IsConnected() && nc.FlushTimeout(collectWithin) == nil {
			to <- prometheus.MustNewConstMetric(rtt, prometheus.GaugeValue, time.Since(began).Seconds())
		}
	}}
}

// StreamCollector tells what the streams hold. It needs a user who may ask for that, as a
// dispatcher's may.
func StreamCollector(js jetstream.JetStream) prometheus.Collector {
	messages := prometheus.NewDesc("vramjet_stream_messages", "Messages in a stream: jobs, results, dead letters.", []string{"stream"}, nil)
	size := prometheus.NewDesc("vramjet_stream_bytes", "What a stream takes on each of its servers.", []string{"stream"}, nil)
	consumers := prometheus.NewDesc("vramjet_stream_consumers", "Consumers of a stream.", []string{"stream"}, nil)
	return collector{[]*prometheus.Desc{messages, size, consumers}, func(to chan<- prometheus.Metric) {
		ctx, cancel := context.WithTimeout(context.Background(), collectWithin)
		defer cancel()
		for _, name := range allStreams {
			s, err := js.Stream(ctx, name)
			if err != nil {
				continue
			}
			state := s.CachedInfo().State
			to <- prometheus.MustNewConstMetric(messages, prometheus.GaugeValue, float64(state.Msgs), name)
			to <- prometheus.MustNewConstMetric(size, prometheus.GaugeValue, float64(state.Bytes), name)
			to <- prometheus.MustNewConstMetric(consumers, prometheus.GaugeValue, float64(state.Consumers), name)
		}
	}}
}
