# The parts that `make test-real` tests with, in .tools. Each is one locked version: Maven and cargo fetch as this machine
# has configured them, and what they brought is compared with the hashes in requirements/ before it runs.

MAVEN := mvn -Dstyle.color=never --quiet --batch-mode --strict-checksums
COPY_DEPENDENCIES := org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies
DYNAMODB_LOCAL := .tools/dynamodb-local
WEB_ADAPTER := .tools/web-adapter
REAL_PARTS := $(DYNAMODB_LOCAL)/.ready $(WEB_ADAPTER)/.ready .tools/ric/.ready .tools/sam/.ready

# $(1) fails with a sentence when a command is missing: $(call needs,command,what for)
needs = command -v $(1) >/dev/null || { echo "make test-real needs $(1): $(2)" >&2; exit 1; }

define fetch_dynamodb_local
$(call needs,mvn,Maven fetches DynamoDB Local)
$(call needs,java,Java 17 or newer runs DynamoDB Local)
echo "Fetching DynamoDB Local ..."
rm -rf $(DYNAMODB_LOCAL)
$(MAVEN) --file requirements/dynamodb-local.xml $(COPY_DEPENDENCIES) -DoutputDirectory="$(abspath $(DYNAMODB_LOCAL)/lib)"
endef

$(DYNAMODB_LOCAL)/.ready: requirements/dynamodb-local.xml requirements/dynamodb-local.sha256
	$(fetch_dynamodb_local)
	# One file more than was locked would be loaded too.
	diff <(cd $(DYNAMODB_LOCAL)/lib && LC_ALL=C sha256sum -- *) requirements/dynamodb-local.sha256 ||
		{ echo "DynamoDB Local is not what was locked (make lock-real locks what is there now)" >&2; exit 1; }
	touch $@

.PHONY: lock-real
lock-real:  ## lock what DynamoDB Local consists of, after a change of requirements/dynamodb-local.xml
	$(fetch_dynamodb_local)
	(cd $(DYNAMODB_LOCAL)/lib && LC_ALL=C sha256sum -- *) >requirements/dynamodb-local.sha256

# The Web Adapter is a layer of AWS's own account; of its source, 1.0.0-rc1 is the newest published crate, while the
# layer that template.yaml names is 1.1.0. Hardly optimised: it takes half the time to build, and nobody measures here.
WEB_ADAPTER_VERSION := 1.0.0-rc1

$(WEB_ADAPTER)/.ready: requirements/web-adapter.sha256
	$(call needs,cargo,Rust builds the AWS Lambda Web Adapter)
	echo "Building the AWS Lambda Web Adapter ..."
	rm -rf $(WEB_ADAPTER)
	export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_DEBUG=0
	export CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_TARGET_DIR="$(abspath $(WEB_ADAPTER))/target"
	cargo install --quiet --locked --no-track --root $(WEB_ADAPTER) --version "=$(WEB_ADAPTER_VERSION)" lambda_web_adapter
	# What it depends on has hashes in its own lock; what it consists of is compared here, before it runs.
	for crate in "$${CARGO_HOME:-$$HOME/.cargo}"/registry/cache/*/lambda_web_adapter-$(WEB_ADAPTER_VERSION).crate; do
		(cd "$${crate%/*}" && sha256sum -- "$${crate##*/}") | diff - requirements/web-adapter.sha256 ||
			{ echo "The Web Adapter is not what was locked" >&2; exit 1; }
	done
	rm -rf $(WEB_ADAPTER)/target
	touch $@

# For Lambda's Python, whatever runs the tests.
.tools/ric/.ready: .venv/.uv requirements/ric.txt
	$(index_of_pip)
	rm -rf .tools/ric
	$(UV) pip install --quiet --python "$$(layers/tailrace/find-python 3.13)" --target .tools/ric \
		--require-hashes --requirement requirements/ric.txt
	touch $@
