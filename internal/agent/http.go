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

// serve answers /metrics, /healthz and /readyz until the context ends. An
// address in use keeps nothing from being enforced; it is tried again.
func (a *Agent) serve(ctx context.Context) {
	if a.opts.MetricsAddress == "" {
		return
	}
	a.forever(ctx, "serve metrics and health on "+a.opts.MetricsAddress, func() error {
		l, err := net.Listen("tcp", a.opts.MetricsAddress)
		if err != nil {
			return err
		}
		server := &http.Server{Handler: a.handler(), ReadHeaderTimeout: 5 * time.Second}
		stop := context.AfterFunc(ctx, func() { server.Close() })
		defer stop()
		return server.Serve(l)
	})
}

func (a *Agent) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.metrics.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		notes, problem := a.status.ready()
		if problem != nil {
			http.Error(w, problem.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, strings.Join(append([]string{"ok"}, notes...), "\n"))
	})
	return mux
}
