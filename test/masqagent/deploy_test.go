package masqagent_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/unmasq/unmasq/internal/agent/agenttest"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
)

// daemonSet has the fields that matter here, each by Kubernetes' name.
type daemonSet struct {
	Spec struct {
		Template struct {
			Spec struct {
				HostNetwork bool `yaml:"hostNetwork"`
				Containers  []struct {
					Image        string
					Args         []string
					VolumeMounts []struct {
						Name      string
						MountPath string `yaml:"mountPath"`
					} `yaml:"volumeMounts"`
					ReadinessProbe struct {
						HTTPGet struct {
							Host, Path string
							Port       int
						} `yaml:"httpGet"`
					} `yaml:"readinessProbe"`
				}
				Volumes []volume
			}
		}
	}
}

type volume struct {
	Name      string
	ConfigMap configMapVolume `yaml:"configMap"`
	Projected struct {
		Sources []struct {
			ConfigMap configMapVolume `yaml:"configMap"`
		}
	}
}

type configMapVolume struct {
	Name     string
	Optional bool
	Items    []struct{ Key, Path string }
}

const manifests = "../../deploy/ip-masq-agent/"

func decode(t *testing.T, text string, into any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(text), into); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// deploy starts what the manifests start, with the files that they mount, as their
// probe asks it.
func deploy(t *testing.T, program string) {
	plain := read(t, manifests+"daemonset.yaml")
	patched, err := netnstest.Test(t, "kubectl").Run(plain, "kubectl", "patch", "--local", "-f", "-", "--patch", read(t, manifests+"azure.yaml"), "-o", "yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, text, dialect string
		files               []string
	}{
		{"kubernetes", plain, "kubernetes", []string{"ip-masq-agent"}},
		{"azure", patched, "azure", []string{"ip-masq-agent", "ip-masq-agent-reconciled"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var set daemonSet
			decode(t, tt.text, &set)
			pod := &set.Spec.Template.Spec
			container := &pod.Containers[0]
			dir := t.TempDir()
			if files := mounted(t, set); !slices.Equal(files, tt.files) {
				t.Errorf("mounts %v, want %v", files, tt.files)
			}
			for _, name := range tt.files {
				agenttest.Write(t, filepath.Join(dir, name), dataOf(t)["config"])
			}
			ns := netnstest.Test(t, "host")
			a := agenttest.LaunchCommand(t, ns, program, append([]string{"ip-masq-agent", "--config-dir", dir}, container.Args...)...)
			probe := container.ReadinessProbe.HTTPGet
			if !pod.HostNetwork || probe.Host != "127.0.0.1" || probe.Port != 9809 || probe.Path != "/readyz" {
				t.Errorf("probes %+v on the host's network: %v", probe, pod.HostNetwork)
			}
			a.Await(t, "ready", func() bool { return a.Ready() == "" })
			if want := "dialect=" + tt.dialect; !strings.Contains(a.Log(), want) {
				t.Errorf("the log doesn't say %s:\n%s", want, a.Log())
			}
			if strings.Contains(a.Log(), "unknown key") || strings.Contains(a.Log(), "level=ERROR") {
				t.Errorf("not all is known:\n%s", a.Log())
			}
		})
	}
}

// dataOf is the ConfigMap's.
func dataOf(t *testing.T) map[string]string {
	t.Helper()
	var m struct {
		Metadata struct{ Name, Namespace string }
		Data     map[string]string
	}
	decode(t, read(t, manifests+"configmap.yaml"), &m)
	if m.Metadata.Name != "ip-masq-agent" || m.Metadata.Namespace != "kube-system" || m.Data["config"] == "" {
		t.Fatalf("not the ConfigMap of ip-masq-agent: %+v", m)
	}
	return m.Data
}

// mounted are the files at /etc/config.
func mounted(t *testing.T, set daemonSet) (files []string) {
	t.Helper()
	pod := &set.Spec.Template.Spec
	for _, m := range pod.Containers[0].VolumeMounts {
		if m.MountPath != "/etc/config" {
			continue
		}
		for _, v := range pod.Volumes {
			if v.Name != m.Name {
				continue
			}
			maps := []configMapVolume{v.ConfigMap}
			for _, s := range v.Projected.Sources {
				maps = append(maps, s.ConfigMap)
			}
			for _, c := range maps {
				if c.Name != "" && !c.Optional {
					t.Errorf("ConfigMap %s isn't optional", c.Name)
				}
				for _, i := range c.Items {
					files = append(files, i.Path)
				}
			}
		}
	}
	return files
}

// TestImage: the image has the program under both agents' names, as DaemonSets say it.
func TestImage(t *testing.T) {
	_, stage, found := strings.Cut(read(t, "../../Dockerfile"), " AS ip-masq-agent\n")
	stage, _, _ = strings.Cut(stage, "\nFROM ")
	if !found {
		t.Fatal("the Dockerfile has no stage ip-masq-agent")
	}
	for _, want := range []string{`ENTRYPOINT \["/ip-masq-agent"\]`, `ln -s unmasq /ip-masq-agent;`, `ln -s unmasq /ip-masq-agent-v2\b`, `COPY --from=build /unmasq /unmasq`} {
		if !regexp.MustCompile(want).MatchString(stage) {
			t.Errorf("no %s in\n%s", want, stage)
		}
	}
}
