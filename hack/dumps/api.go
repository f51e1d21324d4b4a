package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"strings"

	"k8s.io/client-go/rest"

	"github.com/unmasq/unmasq/test/kube"
)

// api is an API server with its etcd in a node's namespace. It is of the newest
// version, which older kube-proxies are supported with.
type api struct {
	*kube.API
	dir    string
	client *http.Client
}

// startAPI starts one at an address of the node, that has objects, by the paths that
// they are made at.
func startAPI(ctx context.Context, h *host, at netip.Addr, objects map[string][]object) (a *api, err error) {
	a = &api{}
	if a.dir, err = os.MkdirTemp("", "unmasq-dumps-"); err != nil {
		return nil, err
	}
	// Of services' endpoints there are those that are made here; nobody gives pods a service account.
	a.API, err = kube.StartAPI(ctx, h.ns, kube.APIOptions{Dir: a.dir, Version: newestKube, Address: at,
		Flags: []string{"--endpoint-reconciler-type=none", "--disable-admission-plugins=ServiceAccount"}})
	if err == nil {
		a.client, err = rest.HTTPClientFor(a.Admin())
	}
	if err == nil {
		err = a.create(ctx, objects)
	}
	if err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

func (a *api) close() error {
	if a.client != nil {
		a.client.CloseIdleConnections()
	}
	return errors.Join(a.Stop(), os.RemoveAll(a.dir))
}

// create objects, each with its status.
func (a *api) create(ctx context.Context, all map[string][]object) error {
	for path, objects := range all {
		for _, o := range objects {
			name := o["metadata"].(object)["name"].(string)
			err := a.request(ctx, http.MethodPost, path, o)
			if status := o["status"]; err == nil && status != nil {
				err = a.request(ctx, http.MethodPatch, path+"/"+name+"/status", object{"status": status})
			}
			if err != nil {
				return fmt.Errorf("%s %s: %w", path, name, err)
			}
		}
	}
	return nil
}

// request makes one; what isn't well is an error with what was said.
func (a *api) request(ctx context.Context, method, path string, body object) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, method, a.URL()+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		r.Header.Set("Content-Type", "application/merge-patch+json")
	}
	resp, err := a.client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= http.StatusBadRequest {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, strings.TrimSpace(string(said)))
	}
	return err
}
