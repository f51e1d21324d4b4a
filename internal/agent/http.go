package agent

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// serve answers /metrics, /healthz and /readyz until the context ends, on one
// address or on two.
func (a *Agent) serve(ctx context.Context) {
	metrics, health := a.opts.MetricsAddress, a.opts.HealthAddress
	mux := http.NewServeMux()
	a.handleMetrics(mux)
	if health == "" || health == metrics {
		a.handleHealth(mux)
		a.serveOn(ctx, metrics, "metrics and health", mux)
		return
	}
	own := http.NewServeMux()
	a.handleHealth(own)
	go a.serveOn(ctx, health, "health", own)
	a.serveOn(ctx, metrics, "metrics", mux)
}

// serveOn an address; "": on none. One in use keeps nothing from being enforced; it
// is tried again.
func (a *Agent) serveOn(ctx context.Context, address, what string, handler http.Handler) {
	if address == "" {
		return
	}
	a.forever(ctx, "serve "+what+" on "+address, func() error {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
		stop := context.AfterFunc(ctx, func() { server.Close() })
		defer stop()
		return server.Serve(l)
	})
}

func (a *Agent) handleMetrics(mux *http.ServeMux) {
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.metrics.registry, promhttp.HandlerOpts{}))
}

func (a *Agent) handleHealth(mux *http.ServeMux) {
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		notes, problem := a.status.ready()
		if problem != nil {
			http.Error(w, problem.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, strings.Join(append([]string{"ok"}, notes...), "\n"))
	})
}
