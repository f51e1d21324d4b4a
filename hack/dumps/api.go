package main

import (
	"encoding/json"
	"net/http"
	"strings"
)

// api answers what a client of Kubernetes asks to follow lists that don't
// change: a list, a watch that says nothing more, or both in one.
type api struct {
	// lists by path; each object has its apiVersion and kind.
	lists map[string][]object
}

func newAPI(lists map[string][]object) *api { return &api{lists} }

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	path, name := r.URL.Path, ""
	items, known := a.lists[path]
	if !known {
		i := strings.LastIndex(path, "/")
		path, name = path[:i], path[i+1:]
		items, known = a.lists[path]
	}
	query := r.URL.Query()
	switch {
	case r.Method != http.MethodGet:
		w.WriteHeader(http.StatusCreated) // events
		_, _ = w.Write([]byte("{}"))
	case !known:
		a.notFound(w)
	case name != "":
		for _, o := range items {
			if o["metadata"].(object)["name"] == name {
				_ = json.NewEncoder(w).Encode(o)
				return
			}
		}
		a.notFound(w)
	case query.Get("watch") != "":
		a.watch(w, r, items, query.Get("sendInitialEvents") == "true")
	default:
		first := object{"apiVersion": "v1", "kind": ""}
		if len(items) > 0 {
			first = items[0]
		}
		_ = json.NewEncoder(w).Encode(object{"apiVersion": first["apiVersion"], "kind": first["kind"].(string) + "List",
			"metadata": object{"resourceVersion": "1"}, "items": items})
	}
}

func (a *api) notFound(w http.ResponseWriter) {
	w.WriteHeader(http.StatusNotFound)
	_ = json.NewEncoder(w).Encode(object{"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404, "message": "not found"})
}

// watch holds the connection open until the client goes.
func (a *api) watch(w http.ResponseWriter, r *http.Request, items []object, initial bool) {
	if initial {
		for _, o := range items {
			_ = json.NewEncoder(w).Encode(object{"type": "ADDED", "object": o})
		}
		if len(items) > 0 {
			_ = json.NewEncoder(w).Encode(object{"type": "BOOKMARK", "object": object{
				"apiVersion": items[0]["apiVersion"], "kind": items[0]["kind"],
				"metadata": object{"resourceVersion": "1", "annotations": object{"k8s.io/initial-events-end": "true"}}}})
		}
	}
	w.(http.Flusher).Flush()
	<-r.Context().Done()
}
